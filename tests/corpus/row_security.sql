-- Policies of all kinds, forced upon the owner, with functions that look into the table itself.
CREATE ROLE row_security_role;
CREATE TABLE t (id int, owner text);
INSERT INTO t SELECT n, 'x' || n FROM generate_series(1, 20) n;
CREATE FUNCTION may(text) RETURNS bool LANGUAGE sql STABLE SET search_path = public AS 'SELECT $1 <> ''x3''';
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
ALTER TABLE t FORCE ROW LEVEL SECURITY;
CREATE POLICY a ON t AS RESTRICTIVE FOR SELECT TO row_security_role USING (may(owner));
CREATE POLICY b ON t FOR INSERT WITH CHECK (id > 5);
CREATE POLICY c ON t FOR UPDATE TO CURRENT_USER, PUBLIC USING (id > 1) WITH CHECK (id > 2);
ALTER TABLE t OWNER TO row_security_role;
COMMENT ON POLICY a ON t IS 'a policy';
