-- database: all
-- in place
-- Names that are words of SQL or of pg_hba.conf for somebody else: those only have no other meaning in quotes.
CREATE ROLE "PUBLIC" LOGIN;
CREATE ROLE "current_user";
CREATE ROLE "session_user" NOINHERIT;
CREATE ROLE "CURRENT_ROLE";
CREATE ROLE "all" LOGIN;
CREATE ROLE "+all";
GRANT "PUBLIC" TO "current_user" WITH ADMIN OPTION;
CREATE SCHEMA "ONLY" AUTHORIZATION "current_user";
CREATE TABLE "ONLY"."TABLE" ("user" int, "current_user" int, "default" int DEFAULT 1, "null" text, "ctid_" int);
INSERT INTO "ONLY"."TABLE" VALUES (1, 2, 3, 'x', 4);
ALTER TABLE "ONLY"."TABLE" OWNER TO "current_user";
GRANT SELECT ON "ONLY"."TABLE" TO "PUBLIC", "session_user";
GRANT UPDATE ("user") ON "ONLY"."TABLE" TO PUBLIC;
GRANT INSERT ON "ONLY"."TABLE" TO "CURRENT_ROLE" WITH GRANT OPTION;
CREATE POLICY "USING" ON "ONLY"."TABLE" TO "PUBLIC", "current_user" USING ("user" > 0);
CREATE FUNCTION "ONLY"."BEGIN"() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION "ONLY"."BEGIN"() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "ONLY"."BEGIN"() TO "PUBLIC";
ALTER DEFAULT PRIVILEGES FOR ROLE "current_user" GRANT SELECT ON TABLES TO "PUBLIC";
ALTER ROLE "PUBLIC" SET work_mem = '9MB';
ALTER ROLE "all" SET work_mem = '8MB';
ALTER ROLE "all" IN DATABASE "all" SET search_path = '"$user"';
COMMENT ON ROLE "PUBLIC" IS 'everybody''s name';
GRANT CONNECT ON DATABASE "all" TO "PUBLIC";
