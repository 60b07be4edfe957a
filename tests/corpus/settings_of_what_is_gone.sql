-- since: 15
-- in place
-- Settings that name what is gone, or comes only later in a dump.
CREATE TEXT SEARCH CONFIGURATION gone (COPY = pg_catalog.german);
CREATE TEXT SEARCH CONFIGURATION there (COPY = pg_catalog.german);
CREATE ACCESS METHOD heap3 TYPE TABLE HANDLER heap_tableam_handler;
CREATE ROLE settings_of_what_is_gone_a;
ALTER DATABASE settings_of_what_is_gone SET default_text_search_config = 'public.gone';
ALTER ROLE settings_of_what_is_gone_a IN DATABASE settings_of_what_is_gone SET default_text_search_config = 'public.there';
ALTER ROLE settings_of_what_is_gone_a SET default_tablespace = 'nowhere';
ALTER ROLE settings_of_what_is_gone_a SET temp_tablespaces = 'nowhere', 'elsewhere';
ALTER DATABASE settings_of_what_is_gone SET default_tablespace = 'nowhere';
ALTER DATABASE settings_of_what_is_gone SET default_table_access_method = 'heap3';
ALTER DATABASE settings_of_what_is_gone SET "pg_stat_statements.track" = 'all';
ALTER DATABASE settings_of_what_is_gone SET "auto_explain.log_min_duration" = '3s';
DROP TEXT SEARCH CONFIGURATION gone;
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
