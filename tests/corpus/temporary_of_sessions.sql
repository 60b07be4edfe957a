-- alone: nothing
-- check: method online: pg_upgrade on a physical copy
-- Somebody is connected who has temporary objects of many kinds, which end with the session.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
\! export PGHOST=/run/matrix-postgres PGUSER=postgres PGDATABASE=temporary_of_sessions; setsid psql -Xq -c 'CREATE TEMP TABLE x (a serial PRIMARY KEY, b int DEFAULT 1, CHECK (b > 0))' -c "CREATE TYPE pg_temp.e AS ENUM ('a')" -c 'CREATE DOMAIN pg_temp.d AS int CHECK (VALUE > 0)' -c "CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'" -c 'CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION pg_temp.f()' -c 'CREATE TEMP VIEW v AS SELECT a FROM x' -c 'CREATE STATISTICS pg_temp.s ON a, b FROM x' -c 'CREATE POLICY p ON x USING (a > 0)' -c 'SELECT pg_sleep(36000)' </dev/null >/dev/null 2>&1 &
