-- since: 16
-- A database in which every query is planned with parallel workers.
CREATE TABLE t (a int, b text);
INSERT INTO t SELECT n, 'x' FROM generate_series(1, 2000) n;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS 'BEGIN RETURN $1; END';
CREATE INDEX ON t (f(a));
ALTER DATABASE database_settings_parallel SET debug_parallel_query = 'regress';
ALTER DATABASE database_settings_parallel SET restrict_nonsystem_relation_kind = 'view, foreign-table';
ALTER DATABASE database_settings_parallel SET max_parallel_workers_per_gather = 8;
