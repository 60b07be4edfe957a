-- until: 16
-- alone: dump 40
-- not taken: index public.bad
-- differs: bad
-- An index by a function that calls another one by the search_path only.
CREATE TABLE t (v text);
INSERT INTO t VALUES ('X');
CREATE FUNCTION low(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION f_low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN low($1); END';
CREATE INDEX bad ON t (f_low(v));
CREATE INDEX good ON t (lower(v));
COMMENT ON INDEX bad IS 'x';
