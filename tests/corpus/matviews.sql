-- differs across majors: ; Type: MATERIALIZED VIEW; 
-- Materialized views: one upon another, without rows, with an index, with functions that have a search_path.
CREATE TABLE t (id int, v text);
INSERT INTO t SELECT n, 'x' || n FROM generate_series(1, 10) n;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql SET search_path = public AS 'SELECT count(*) FROM t';
CREATE MATERIALIZED VIEW one AS SELECT id, v FROM t WHERE id > 5;
CREATE MATERIALIZED VIEW two AS SELECT count(*) AS n, public.counted() AS m FROM one;
CREATE MATERIALIZED VIEW empty AS SELECT id FROM t WITH NO DATA;
CREATE UNIQUE INDEX ON one (id);
CREATE MATERIALIZED VIEW aaa_first AS SELECT n FROM two;
