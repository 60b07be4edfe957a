-- create: CONNECTION LIMIT 3
-- in place
-- What belongs to the database itself: settings of every kind, for it and for roles in it, privileges, a comment, a limit.
CREATE ROLE database_settings_role LOGIN;
ALTER DATABASE database_settings SET work_mem = '7MB';
ALTER DATABASE database_settings SET search_path = "$user", public, "we, ird", "it's";
ALTER DATABASE database_settings SET datestyle = 'SQL, DMY';
ALTER DATABASE database_settings SET "my.own" = 'a\b ''c'' = d';
ALTER DATABASE database_settings SET default_transaction_read_only = on;
ALTER DATABASE database_settings SET statement_timeout = '90s';
ALTER DATABASE database_settings SET temp_tablespaces = '';
ALTER ROLE database_settings_role IN DATABASE database_settings SET search_path = '';
ALTER ROLE database_settings_role IN DATABASE database_settings SET row_security = off;
SET default_transaction_read_only = off;
REVOKE CONNECT ON DATABASE database_settings FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE database_settings TO database_settings_role WITH GRANT OPTION;
COMMENT ON DATABASE database_settings IS 'a comment
of two lines; -- it''s';
CREATE TABLE t (a date);
INSERT INTO t VALUES ('2026-12-31');
