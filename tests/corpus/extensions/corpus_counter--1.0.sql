CREATE SEQUENCE corpus_counter_seq;
CREATE TABLE corpus_counter_log (n int DEFAULT nextval('corpus_counter_seq'));
