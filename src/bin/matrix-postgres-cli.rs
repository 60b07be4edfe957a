//! See `matrix_postgres::cli::psql`.

fn main() -> std::process::ExitCode {
    matrix_postgres::cli::main("matrix-postgres-cli", matrix_postgres::cli::psql::run)
}
