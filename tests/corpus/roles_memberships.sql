-- since: 16
-- Memberships with the options that 16 brings, granted by somebody who is no superuser.
CREATE ROLE roles_memberships_giver CREATEROLE;
CREATE ROLE roles_memberships_a;
CREATE ROLE roles_memberships_b;
GRANT roles_memberships_a TO roles_memberships_giver WITH ADMIN TRUE, INHERIT FALSE;
SET ROLE roles_memberships_giver;
GRANT roles_memberships_a TO roles_memberships_b WITH INHERIT FALSE, SET TRUE GRANTED BY roles_memberships_giver;
RESET ROLE;
