-- alone: online 40
-- alone: dump 40
-- check: not valid UTF-8
-- create: ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'
-- client encoding: SQL_ASCII
-- Names of tables that are no UTF-8, which only such a database can have: made from bytes, as an old client would.
DO $$ BEGIN EXECUTE 'CREATE TABLE "t' || pg_catalog.convert_from('\xe4'::bytea, 'SQL_ASCII') || '" (a int)'; END $$;
DO $$ BEGIN EXECUTE 'INSERT INTO "t' || pg_catalog.convert_from('\xe4'::bytea, 'SQL_ASCII') || '" VALUES (1), (2)'; END $$;
