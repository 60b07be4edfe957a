-- A cluster with a bit of everything that a comparison looks at. psql, as superuser, from the database postgres.
CREATE ROLE ada LOGIN CREATEDB CONNECTION LIMIT 5 PASSWORD 'it''s a secret' VALID UNTIL '2038-01-01 00:00:00+00';
CREATE ROLE "Grace H" LOGIN NOINHERIT PASSWORD 'another';
CREATE ROLE readers;
CREATE ROLE auditor BYPASSRLS;
GRANT readers TO ada, auditor;
GRANT readers TO "Grace H" WITH ADMIN OPTION;
GRANT pg_monitor TO auditor;
COMMENT ON ROLE readers IS 'may; read
-- Name: nothing; Type: TABLE; Schema: public; Owner: nobody
it''s';
ALTER ROLE ada SET work_mem = '8MB';
ALTER ROLE ada SET search_path = "$user", public, "we ird";
CREATE DATABASE homeserver OWNER ada TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' CONNECTION LIMIT 50;
CREATE DATABASE "we ird" TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8';
ALTER DATABASE homeserver SET statement_timeout = '90s';
ALTER ROLE auditor IN DATABASE homeserver SET search_path = analysis;
REVOKE CONNECT ON DATABASE homeserver FROM PUBLIC;
GRANT CONNECT ON DATABASE homeserver TO readers;
COMMENT ON DATABASE homeserver IS 'of the homeserver';
\connect "we ird"
CREATE TABLE "select" ("from" int, "A b" text DEFAULT 'x;--');
INSERT INTO "select" SELECT n, n FROM generate_series(1, 20) AS n;
\connect homeserver
CREATE EXTENSION pg_trgm;
CREATE EXTENSION citext SCHEMA public;
CREATE SCHEMA analysis AUTHORIZATION "Grace H";
GRANT USAGE ON SCHEMA analysis TO readers WITH GRANT OPTION;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE DOMAIN positive AS int DEFAULT 1 NOT NULL CONSTRAINT is_positive CHECK (VALUE > 0);
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room text NOT NULL DEFAULT 'none (yet), DEFAULT',
    sender citext,
    mood mood DEFAULT 'happy',
    size positive,
    at timestamptz NOT NULL DEFAULT '2026-11-24 03:00+01',
    content jsonb CHECK (content IS NULL OR jsonb_typeof(content) = 'object'),
    twice int GENERATED ALWAYS AS (2 * length(room)) STORED,
    weight float8 DEFAULT 0.1,
    gone int,
    CONSTRAINT "room is short" CHECK (length(room) < 100),
    UNIQUE (room, id)
);
ALTER TABLE events DROP COLUMN gone;
ALTER TABLE events ALTER COLUMN room SET STATISTICS 500;
ALTER TABLE events SET (fillfactor = 90);
INSERT INTO events (room, sender, content, weight)
    SELECT 'room ' || n % 7, '@Ada' || n % 5 || ':test.local', jsonb_build_object('body', 'it''s ' || n), n / 3.0
    FROM generate_series(1, 1000) AS n;
CREATE TABLE edges (
    id serial, event bigint REFERENCES events ON DELETE CASCADE DEFERRABLE, "user" text, data bytea,
    during tstzrange, EXCLUDE USING gist (during WITH &&) WHERE (id > 1000000)
);
INSERT INTO edges (event, "user", data) SELECT id, sender, decode(md5(room), 'hex') FROM events WHERE id % 3 = 0;
ALTER TABLE edges ADD CONSTRAINT later CHECK (id > 0) NOT VALID;
CREATE INDEX events_room ON events (room DESC, sender) WHERE content IS NOT NULL;
CREATE INDEX events_lower ON events (lower(sender::text), ((id || room)));
CREATE INDEX events_trgm ON events USING gin (room gin_trgm_ops);
CREATE UNIQUE INDEX edges_user ON edges ("user", id);
ALTER TABLE edges REPLICA IDENTITY FULL;
CREATE TABLE parts (id int NOT NULL, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_2025 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO parts SELECT n, date '2025-07-01' + n FROM generate_series(1, 300) AS n;
CREATE TABLE parent (a int NOT NULL, b text CHECK (b <> ''));
CREATE TABLE child (c int) INHERITS (parent);
INSERT INTO parent VALUES (1, 'x'); INSERT INTO child VALUES (2, 'y', 3);
CREATE UNLOGGED TABLE cache (k text PRIMARY KEY, v money);
INSERT INTO cache VALUES ('k', '1.50');
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE VIEW loud WITH (security_barrier) AS
    SELECT e.id, upper(e.sender::text) AS sender, substring(e.room FROM 1 FOR 4) AS room,
        extract(year FROM e.at) AS year, CASE WHEN e.id IN (1, 2) THEN 'low' ELSE 'high' END AS level
    FROM events e WHERE e.content ->> 'body' LIKE '%\_%' OR e.id > 10 ORDER BY e.id;
CREATE VIEW joined AS SELECT e.id, d."user" FROM events e JOIN edges d ON d.event = e.id;
CREATE MATERIALIZED VIEW totals AS SELECT e.room, count(*) AS events FROM events e GROUP BY e.room;
CREATE MATERIALIZED VIEW empty AS SELECT 1 AS a WITH NO DATA;
CREATE FUNCTION greet(name text DEFAULT 'you', OUT greeting text) LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog AS $f$
BEGIN
--
-- Name: fake; Type: TABLE; Schema: public; Owner: postgres
--

    greeting := 'hello; ' || name; -- it's
END $f$;
REVOKE EXECUTE ON FUNCTION greet FROM PUBLIC;
GRANT EXECUTE ON FUNCTION greet TO readers;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.data := ''\x00''; RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON edges FOR EACH ROW WHEN (NEW.id > 5 AND NEW.data IS NULL)
    EXECUTE FUNCTION stamp();
CREATE RULE quiet AS ON DELETE TO nothing DO INSTEAD NOTHING;
CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int, initcond = 0);
CREATE STATISTICS correlated ON room, sender FROM events;
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON events FOR SELECT TO readers USING (sender::text = current_user AND id > 0);
CREATE POLICY short ON events AS RESTRICTIVE FOR INSERT WITH CHECK (length(room) < 50);
GRANT SELECT, INSERT (room, sender) ON events TO readers;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE ada IN SCHEMA public GRANT SELECT ON TABLES TO readers;
ALTER TABLE edges OWNER TO ada;
COMMENT ON TABLE events IS 'what happened';
COMMENT ON COLUMN events.room IS 'where; it''s';
COMMENT ON INDEX events_room IS 'x';
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION inserts FOR TABLE events, parts WITH (publish = 'insert');
CREATE SEQUENCE counter AS int INCREMENT 5 MAXVALUE 1000 CYCLE;
SELECT nextval('counter'), nextval('counter');
CREATE SEQUENCE unused;
SELECT lo_from_bytea(4711, 'one'), lo_from_bytea(4712, convert_to(repeat('two', 2000), 'UTF8'));
ALTER LARGE OBJECT 4711 OWNER TO ada;
GRANT SELECT ON LARGE OBJECT 4712 TO readers;
COMMENT ON LARGE OBJECT 4711 IS 'a picture';
CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION noticed();
