-- differs: SECURITY LABEL
-- alone: dump 40
-- not taken: security label
-- A security label of a provider that no server here loads.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
INSERT INTO pg_catalog.pg_seclabel VALUES ('public.t'::regclass, 'pg_catalog.pg_class'::regclass, 0, 'nobodys', 'secret');
