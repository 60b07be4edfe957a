-- since: 14
-- Settings of a database that would change what is read or written: none may reach a dump or a comparison.
ALTER DATABASE database_settings_hostile SET bytea_output = 'escape';
ALTER DATABASE database_settings_hostile SET extra_float_digits = -10;
ALTER DATABASE database_settings_hostile SET intervalstyle = 'sql_standard';
ALTER DATABASE database_settings_hostile SET timezone = 'Asia/Kathmandu';
ALTER DATABASE database_settings_hostile SET client_encoding = 'LATIN1';
ALTER DATABASE database_settings_hostile SET standard_conforming_strings = on;
ALTER DATABASE database_settings_hostile SET quote_all_identifiers = on;
ALTER DATABASE database_settings_hostile SET lc_messages = 'C';
ALTER DATABASE database_settings_hostile SET statement_timeout = '1s';
ALTER DATABASE database_settings_hostile SET lock_timeout = '1ms';
ALTER DATABASE database_settings_hostile SET idle_in_transaction_session_timeout = '100ms';
ALTER DATABASE database_settings_hostile SET default_transaction_isolation = 'serializable';
ALTER DATABASE database_settings_hostile SET default_table_access_method = 'heap';
ALTER DATABASE database_settings_hostile SET default_toast_compression = 'pglz';
ALTER DATABASE database_settings_hostile SET xmloption = 'document';
ALTER DATABASE database_settings_hostile SET check_function_bodies = on;
ALTER DATABASE database_settings_hostile SET session_replication_role = 'origin';
ALTER DATABASE database_settings_hostile SET array_nulls = off;
ALTER DATABASE database_settings_hostile SET transform_null_equals = on;
CREATE TABLE t (a float8, b bytea, c interval, d timestamptz, e text[], f xml);
INSERT INTO t VALUES (0.1 + 0.2, '\x0001ff', '-1 day +02:03', '2026-03-29 02:30:00+01', ARRAY['NULL', NULL], xmlparse(content 'a<b/>'));
