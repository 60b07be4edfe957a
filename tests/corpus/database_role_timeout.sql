-- A role of a setting for one database that is a superuser: the one that logs in.
ALTER ROLE postgres IN DATABASE database_role_timeout SET search_path = nowhere;
ALTER ROLE postgres IN DATABASE database_role_timeout SET default_transaction_read_only = on;
ALTER ROLE postgres IN DATABASE database_role_timeout SET row_security = off;
CREATE TABLE public.t (a int);
INSERT INTO public.t VALUES (1);
