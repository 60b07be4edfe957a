-- since: 17
-- A trigger on login that writes down everybody, us as well: the rows are no part of what is compared.
CREATE TABLE logins (who text, at timestamptz);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NOT pg_is_in_recovery() THEN INSERT INTO public.logins VALUES (session_user, now()); END IF; END $$;
CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note();
ALTER EVENT TRIGGER note ENABLE ALWAYS;
