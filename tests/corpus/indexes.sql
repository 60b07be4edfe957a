-- since: 14
-- Indexes of every method and kind: partial, of expressions, covering, with classes, orders, options, statistics, clustered, replica identity.
CREATE EXTENSION bloom;
CREATE EXTENSION pg_trgm;
CREATE TABLE t (id int NOT NULL, v text, j jsonb, p point, a int[], r int4range, x text);
INSERT INTO t SELECT n, 'v' || n, jsonb_build_object('n', n), point(n, n), ARRAY[n], int4range(n, n + 5), 'x' FROM generate_series(1, 50) n;
CREATE INDEX i1 ON t (lower(v) text_pattern_ops DESC NULLS LAST, (id % 7)) WHERE v IS NOT NULL AND id > 5;
CREATE UNIQUE INDEX i2 ON t (id) INCLUDE (v, x) WITH (fillfactor = 70, deduplicate_items = off);
CREATE INDEX i3 ON t USING gin (j jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX i4 ON t USING gist (p) WITH (buffering = on);
CREATE INDEX i5 ON t USING brin (id int4_minmax_multi_ops (values_per_range = 16)) WITH (pages_per_range = 2);
CREATE INDEX i6 ON t USING hash (v);
CREATE INDEX i7 ON t USING spgist (r);
CREATE INDEX i8 ON t USING bloom (id, v) WITH (length = 100);
CREATE INDEX i9 ON t USING gist (v gist_trgm_ops (siglen = 32));
ALTER INDEX i1 ALTER COLUMN 2 SET STATISTICS 300;
ALTER TABLE t CLUSTER ON i2;
ALTER TABLE t REPLICA IDENTITY USING INDEX i2;
COMMENT ON INDEX i1 IS 'an index';
