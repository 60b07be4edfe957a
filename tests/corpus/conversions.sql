-- since: 14
-- Conversions, transforms and languages of one's own.
CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION mine IS 'a conversion';
CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
CREATE FUNCTION handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE TRUSTED LANGUAGE another HANDLER handler;
CREATE FUNCTION f() RETURNS int LANGUAGE another AS 'BEGIN RETURN 1; END';
COMMENT ON LANGUAGE another IS 'as plpgsql';
