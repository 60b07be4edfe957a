-- Event triggers, of which one has tags, one is disabled, and one writes down every DDL there is.
CREATE TABLE log (what text, tag text);
CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (tg_event, tg_tag); END $$;
CREATE EVENT TRIGGER a ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION note();
CREATE EVENT TRIGGER b ON sql_drop EXECUTE FUNCTION note();
CREATE EVENT TRIGGER c ON ddl_command_start EXECUTE FUNCTION note();
ALTER EVENT TRIGGER b DISABLE;
ALTER EVENT TRIGGER c ENABLE ALWAYS;
CREATE TABLE made (a int);
COMMENT ON EVENT TRIGGER a IS 'an event trigger';
