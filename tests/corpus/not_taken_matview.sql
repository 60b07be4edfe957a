-- until: 16
-- alone: dump 40
-- not taken: materialized view public.m
-- differs: public.m
-- A materialized view by a function that finds its table by the search_path only.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
CREATE FUNCTION cnt() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE MATERIALIZED VIEW m AS SELECT public.cnt() AS n;
CREATE TABLE zz_last (a int);
INSERT INTO zz_last VALUES (7);
