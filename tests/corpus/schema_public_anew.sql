-- The schema public dropped and made anew by somebody else, with privileges and a comment.
CREATE ROLE schema_public_anew_role;
DROP SCHEMA public;
CREATE SCHEMA public AUTHORIZATION schema_public_anew_role;
GRANT USAGE ON SCHEMA public TO schema_public_anew_role;
COMMENT ON SCHEMA public IS 'another one';
CREATE TABLE public.t (a int);
