-- unqualified across majors
-- A chain of many views, and of functions, tables and types that need each other.
DO $$ BEGIN
  EXECUTE 'CREATE VIEW v0 AS SELECT 1 AS a';
  FOR n IN 1..200 LOOP EXECUTE format('CREATE VIEW v%s AS SELECT a FROM v%s', n, n - 1); END LOOP;
END $$;
CREATE TABLE t (a int);
CREATE FUNCTION f(t) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.a';
CREATE TABLE u (x t, CHECK ((x).a > 0));
ALTER TABLE t ADD CONSTRAINT by_f CHECK (f(t) > 0);
INSERT INTO t VALUES (1);
INSERT INTO u VALUES (ROW(1)::t);
CREATE INDEX ON t (f(t));
