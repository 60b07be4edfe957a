-- Domains over composites, and arrays of them, with statistics: where stamps of columns are removed for pg_upgrade, its
-- pg_dump could not read these ("using outdated tuple descriptor").
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN named AS pair CHECK ((VALUE).a IS NULL OR (VALUE).a > 0);
CREATE TABLE t (a named, e named[]);
INSERT INTO t VALUES ((1, 'x'), ARRAY[(2, 'y')::named]), (NULL, '{}');
ANALYZE t;
