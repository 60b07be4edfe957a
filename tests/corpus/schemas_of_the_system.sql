-- check: function pg_catalog.corpus_mine() is not migrated
-- check: function information_schema.corpus_mine() is not migrated
-- Functions that a superuser has put among the system's own: no tool carries them over.
CREATE FUNCTION pg_catalog.corpus_mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION information_schema.corpus_mine() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
