-- since: 14
-- Extended statistics of all kinds, of expressions, with a target, a comment and another owner.
CREATE ROLE statistics_objects_role;
CREATE TABLE t (a int, b int, c text);
INSERT INTO t SELECT n % 10, n % 5, 'x' || n FROM generate_series(1, 100) n;
CREATE STATISTICS one (ndistinct, dependencies) ON a, b FROM t;
CREATE STATISTICS two ON (a + b), lower(c) FROM t;
CREATE STATISTICS three (mcv) ON a, c FROM t;
ALTER STATISTICS one SET STATISTICS 0;
ALTER STATISTICS two OWNER TO statistics_objects_role;
COMMENT ON STATISTICS two IS 'statistics';
ALTER TABLE t ALTER COLUMN a SET (n_distinct = -0.5, n_distinct_inherited = 100);
ALTER TABLE t ALTER COLUMN b SET STATISTICS 0;
ANALYZE t;
