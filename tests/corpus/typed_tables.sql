-- Tables of a type, with constraints and defaults of their own.
CREATE TYPE person AS (name text, born date);
CREATE TABLE people OF person (name WITH OPTIONS PRIMARY KEY, born DEFAULT '2000-01-01');
CREATE TABLE more OF person;
INSERT INTO people (name) VALUES ('Ada');
ALTER TYPE person ADD ATTRIBUTE died date CASCADE;
