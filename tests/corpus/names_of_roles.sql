-- Roles with quotes, blanks, line ends, semicolons, hyphens and key words, as owners and grantees and with comments.
CREATE ROLE "names_of_roles o'brien" LOGIN PASSWORD 'it''s';
CREATE ROLE "names_of_roles ""quoted"", it\" CONNECTION LIMIT 3;
CREATE ROLE "names_of_roles semi;colon
line" VALID UNTIL 'infinity';
CREATE ROLE "names_of_roles-Hyphen=x" IN ROLE "names_of_roles o'brien";
COMMENT ON ROLE "names_of_roles o'brien" IS 'first line;
second';
ALTER ROLE "names_of_roles o'brien" SET search_path = "$user", "a b", "c'd";
CREATE TABLE t (a int);
ALTER TABLE t OWNER TO "names_of_roles o'brien";
GRANT SELECT ON t TO "names_of_roles ""quoted"", it\" WITH GRANT OPTION;
GRANT UPDATE (a) ON t TO "names_of_roles semi;colon
line";
CREATE POLICY p ON t TO "names_of_roles-Hyphen=x", "names_of_roles o'brien" USING (a > 0);
ALTER DEFAULT PRIVILEGES FOR ROLE "names_of_roles o'brien" GRANT SELECT ON TABLES TO "names_of_roles semi;colon
line";
