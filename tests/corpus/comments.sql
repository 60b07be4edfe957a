-- differs across majors: ; Type: VIEW; 
-- Comments on everything that may have one and is in no other file.
CREATE SCHEMA s;
COMMENT ON SCHEMA s IS 'schema';
COMMENT ON SCHEMA public IS 'it''s public';
CREATE TABLE s.t (a serial PRIMARY KEY, b text);
COMMENT ON TABLE s.t IS 'table
of lines';
COMMENT ON COLUMN s.t.b IS E'\\ column \u20ac';
COMMENT ON SEQUENCE s.t_a_seq IS 'sequence';
COMMENT ON CONSTRAINT t_pkey ON s.t IS 'key';
CREATE VIEW s.v AS SELECT a FROM s.t;
COMMENT ON VIEW s.v IS 'view';
COMMENT ON COLUMN s.v.a IS 'column of a view';
CREATE TYPE s.ty AS ENUM ('a');
COMMENT ON TYPE s.ty IS 'type';
CREATE DOMAIN s.d AS int CONSTRAINT c CHECK (VALUE > 0);
COMMENT ON DOMAIN s.d IS 'domain';
COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'constraint of a domain';
CREATE FUNCTION s.f(int, OUT text) LANGUAGE sql AS $$ SELECT 'x' $$;
COMMENT ON FUNCTION s.f(int) IS 'function';
CREATE PROCEDURE s.p() LANGUAGE sql AS '';
COMMENT ON PROCEDURE s.p IS 'procedure';
COMMENT ON EXTENSION plpgsql IS 'another comment than the usual one';
COMMENT ON LANGUAGE plpgsql IS 'language';
CREATE TRIGGER z BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
COMMENT ON TRIGGER z ON s.t IS 'trigger';
