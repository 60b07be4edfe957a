-- What is set for all roles in all databases, and the same in this one alone.
ALTER ROLE ALL SET log_min_error_statement = 'panic';
ALTER ROLE ALL SET "corpus.list" = 'a, "B", ''c''';
ALTER ROLE ALL IN DATABASE settings_of_all SET lock_timeout = '7min';
