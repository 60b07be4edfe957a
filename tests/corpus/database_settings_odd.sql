-- in place
-- Settings of a database that hold for whoever logs in, and that nobody thinks of.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
ALTER DATABASE database_settings_odd SET session_replication_role = 'replica';
ALTER DATABASE database_settings_odd SET application_name = 'something';
ALTER DATABASE database_settings_odd SET exit_on_error = on;
ALTER DATABASE database_settings_odd SET client_min_messages = 'debug1';
ALTER DATABASE database_settings_odd SET max_stack_depth = '100kB';
ALTER DATABASE database_settings_odd SET work_mem = '64kB';
ALTER DATABASE database_settings_odd SET default_statistics_target = 1;
ALTER DATABASE database_settings_odd SET dynamic_library_path = '/nowhere';
ALTER DATABASE database_settings_odd SET check_function_bodies = on;
ALTER DATABASE database_settings_odd SET allow_system_table_mods = on;
ALTER DATABASE database_settings_odd SET "plpgsql.extra_errors" = 'all';
ALTER DATABASE database_settings_odd SET lo_compat_privileges = on;
ALTER DATABASE database_settings_odd SET synchronous_commit = off;
ALTER DATABASE database_settings_odd SET xmlbinary = 'hex';
ALTER DATABASE database_settings_odd SET backslash_quote = off;
ALTER DATABASE database_settings_odd SET lc_monetary = 'C';
ALTER DATABASE database_settings_odd SET geqo_threshold = 2;
