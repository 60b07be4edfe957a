-- alone: online 40
-- check: reg
-- Names of functions and schemas as values: pg_upgrade does not take such columns, a dump does.
CREATE SCHEMA s;
CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE t (a regprocedure, b regnamespace, c regoper, d regconfig);
INSERT INTO t VALUES ('s.f(int)', 's', '||/', 'pg_catalog.german');
