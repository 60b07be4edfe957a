-- Composite types in composites, arrays of both, a column of a table's own row type, one with a dropped attribute.
CREATE TYPE inner_one AS (x float8, y text);
CREATE TYPE outer_one AS (i inner_one, list inner_one[], gone int, n numeric);
ALTER TYPE outer_one DROP ATTRIBUTE gone;
ALTER TYPE outer_one ALTER ATTRIBUTE n TYPE numeric(10, 2);
CREATE TABLE base (a int, b text);
CREATE TABLE t (o outer_one, rows_of_it base[]);
INSERT INTO t VALUES (ROW(ROW(1.5, 'a,"b\(')::inner_one, ARRAY[ROW(2, NULL)::inner_one], 3.14159)::outer_one, ARRAY[ROW(1, 'x')::base, NULL]);
COMMENT ON COLUMN outer_one.n IS 'an attribute';
