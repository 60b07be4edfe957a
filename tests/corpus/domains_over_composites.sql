-- until: 16
-- Domains over composites, and arrays of them. From 17 to 18, pg_dump cannot read the statistics of such columns
-- ("using outdated tuple descriptor"), so that pg_upgrade does not go: a rehearsal tells.
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN named AS pair CHECK ((VALUE).a IS NULL OR (VALUE).a > 0);
CREATE TABLE t (a named, e named[]);
INSERT INTO t VALUES ((1, 'x'), ARRAY[(2, 'y')::named]), (NULL, '{}');
