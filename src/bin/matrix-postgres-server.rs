//! See `matrix_postgres::cli::server`.

fn main() -> std::process::ExitCode {
    matrix_postgres::cli::main("matrix-postgres-server", matrix_postgres::cli::server::run)
}
