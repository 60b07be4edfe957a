-- JSON as it was written: keys twice, blanks, numbers of many digits, escapes; jsonb; paths.
CREATE TABLE t (a json, b jsonb, c jsonpath);
INSERT INTO t VALUES ('{"a": 1,  "a":2 ,"\u00e4\\": [1e5, -0, 1E-400]}', '{"z": 1, "a": 12345678901234567890.1234567890, "n": null, "u": "\ud83d\ude00\n"}', '$."a b"[*] ? (@ > 1 && exists (@.x))'),
    (' [ ] ', '[]', 'strict $'), ('null', 'null', NULL), ('"x"', '1.0', '$.**{2 to last}');
CREATE INDEX ON t ((b->>'a'), (b @> '{"z": 1}'));
