-- Large objects with owners, privileges and comments, an empty one, one with holes, one at the highest number.
CREATE ROLE large_objects_owner;
CREATE ROLE large_objects_reader;
SELECT lo_from_bytea(100001, 'text'), lo_create(100002), lo_from_bytea(4294967295, '\x00ff00');
SELECT lo_put(100002, 100000, 'after a hole');
SELECT lo_create(100003);
ALTER LARGE OBJECT 100001 OWNER TO large_objects_owner;
GRANT SELECT ON LARGE OBJECT 100001 TO large_objects_reader WITH GRANT OPTION;
REVOKE ALL ON LARGE OBJECT 100003 FROM CURRENT_USER;
COMMENT ON LARGE OBJECT 4294967295 IS 'the last';
SELECT lo_from_bytea(200000 + n, ('n' || n)::bytea) FROM generate_series(1, 1200) n;
