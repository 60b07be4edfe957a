-- Text with all that COPY escapes, lines that end a COPY, invisible characters, a value that looks like NULL, one of megabytes.
CREATE TABLE t (id int, a text, b char(5), c varchar(3), d name, e "char");
INSERT INTO t VALUES (1, E'\\.', 'x', '', '', ''), (2, '\N', ' ', E'\t', E'\n', E'\\'),
    (3, E'a\rb\nc\td\be\ff\vg\\h', E'\\.', NULL, repeat('n', 63), '\377'), (4, E'\u0001\u001f\u007f\u0085\u200b\u202e\ufeff\U0010ffff', '', '', '', 'x'),
    (5, E'--\n-- Name: x; Type: TABLE; Schema: public; Owner: y\n--\n', '', '', '', NULL), (6, E'\n\\.\n\\connect x\n\\! id\n', '', '', '', ''),
    (7, repeat('0123456789', 300000), '', '', '', ''), (8, '', '', '', '', '');
