-- since: 15
-- Privileges on parameters, which belong to the cluster: in its globals, compared, and asked for by name only.
CREATE ROLE parameter_privileges_role;
GRANT SET ON PARAMETER log_min_duration_statement TO parameter_privileges_role;
GRANT ALTER SYSTEM ON PARAMETER work_mem TO parameter_privileges_role WITH GRANT OPTION;
GRANT SET ON PARAMETER "my.own" TO parameter_privileges_role;
