-- differs across majors: ; Type: VIEW; 
-- Names with every punctuation, blanks in front and behind, line ends, key words, and what looks like pg_dump's own comments.
CREATE SCHEMA "s.c""h'e%m\a";
CREATE TABLE "s.c""h'e%m\a"." a;b--c/*d*/ " ("select" int, "a
b" text, "$1" int, "(x)" int, "ü€😀" int, "TABLE DATA" int);
INSERT INTO "s.c""h'e%m\a"." a;b--c/*d*/ " VALUES (1, 'x', 2, 3, 4, 5);
CREATE TABLE "-- Name: t; Type: TABLE; Schema: public; Owner: postgres" (a int);
INSERT INTO "-- Name: t; Type: TABLE; Schema: public; Owner: postgres" VALUES (1), (2);
CREATE TABLE "line
-- Name: x; Type: TABLE; Schema: public; Owner: y
end" (a serial, CONSTRAINT "c
d" CHECK (a > 0));
INSERT INTO "line
-- Name: x; Type: TABLE; Schema: public; Owner: y
end" SELECT generate_series(1, 3);
CREATE INDEX "i'1\" ON "line
-- Name: x; Type: TABLE; Schema: public; Owner: y
end" (a);
CREATE VIEW "v""v" AS SELECT "select" FROM "s.c""h'e%m\a"." a;b--c/*d*/ ";
CREATE FUNCTION "f(g)"("a b" int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT 1';
COMMENT ON TABLE "-- Name: t; Type: TABLE; Schema: public; Owner: postgres" IS '
--
-- Name: nothing; Type: TABLE; Schema: public; Owner: nobody
--

CREATE TABLE public.nothing ();
\connect x
';
