-- Text search: dictionaries, configurations with mappings, parsers and templates of one's own, generated vectors with an index.
CREATE EXTENSION unaccent;
CREATE TEXT SEARCH DICTIONARY short (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION mine (COPY = pg_catalog.german);
ALTER TEXT SEARCH CONFIGURATION mine ALTER MAPPING FOR asciiword, word WITH public.unaccent, short, german_stem;
ALTER TEXT SEARCH CONFIGURATION mine DROP MAPPING FOR url;
CREATE TEXT SEARCH PARSER my_parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE my_template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
COMMENT ON TEXT SEARCH CONFIGURATION mine IS 'a configuration';
CREATE TABLE t (body text, v tsvector GENERATED ALWAYS AS (to_tsvector('pg_catalog.german', body)) STORED);
INSERT INTO t VALUES ('Die Äpfel fallen nicht weit'), ('it''s a test');
CREATE INDEX ON t USING gin (v);
