-- since: 17
-- MAINTAIN itself, and the role that has it everywhere.
CREATE ROLE privileges_maintain_role IN ROLE pg_maintain;
CREATE TABLE t (a int);
GRANT MAINTAIN ON t TO privileges_maintain_role;
