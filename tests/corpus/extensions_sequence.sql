-- An extension with a sequence of its own that no dump has, and that has gone on.
CREATE EXTENSION corpus_counter;
SELECT nextval('corpus_counter_seq') FROM generate_series(1, 5);
