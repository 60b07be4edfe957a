-- create: ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'
-- in place
-- A database in LATIN1: names, rows, comments, labels and functions.
CREATE TABLE "Tür" ("Größe" int, v text DEFAULT 'ä');
INSERT INTO "Tür" SELECT n, 'ÄÖÜß' || n FROM generate_series(1, 10) n;
CREATE TYPE "Farbe" AS ENUM ('grün', 'weiß');
COMMENT ON TABLE "Tür" IS 'für Größen';
CREATE FUNCTION "zähle"() RETURNS text LANGUAGE sql AS $$ SELECT 'ü'::text $$;
CREATE INDEX "schön" ON "Tür" ("Größe");
