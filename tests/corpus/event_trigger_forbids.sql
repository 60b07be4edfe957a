-- An event trigger that lets nobody make anything.
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
CREATE FUNCTION stop_it() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no ddl by %', current_user; END $$;
CREATE EVENT TRIGGER stop_it ON ddl_command_start EXECUTE FUNCTION stop_it();
ALTER EVENT TRIGGER stop_it ENABLE ALWAYS;
