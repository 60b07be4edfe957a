-- Labels that were put in between and renamed, of 63 bytes, with quotes, and an enum without any.
CREATE TYPE nothing AS ENUM ();
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'happy');
ALTER TYPE mood ADD VALUE 'between' BEFORE 'happy';
ALTER TYPE mood ADD VALUE 'very first' BEFORE 'sad';
ALTER TYPE mood RENAME VALUE 'sad' TO 'ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssd';
CREATE TABLE t (m mood DEFAULT 'happy', n nothing);
INSERT INTO t SELECT unnest(enum_range(NULL::mood));
CREATE INDEX ON t (m) WHERE m > 'between';
