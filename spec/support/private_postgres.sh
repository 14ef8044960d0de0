# A PostgreSQL for one build of the extension: a copy of the programs with links to everything else.
# PostgreSQL finds its files by the place of its programs, so nothing goes into the installed one, and
# what is tested there does not meet what is tested here.
#
# To be sourced, with $pg_config set. It makes a directory, $work, that goes when the script ends.

work=$(mktemp -d "${TMPDIR:-/tmp}/ruvector-postgres-XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
chmod 755 "$work"

# The directory that all of PostgreSQL's lie below, and the parts behind it.
bin=$("$pg_config" --bindir) lib=$("$pg_config" --pkglibdir) share=$("$pg_config" --sharedir)
root=$bin
while case "$lib" in "$root"/*) false ;; esac || case "$share" in "$root"/*) false ;; esac; do
    root=$(dirname "$root")
done
[ "$root" = / ] && root=

private_postgres() { # NAME
    set -- "$work/$1"
    mkdir -p "$1${bin#"$root"}" "$1${lib#"$root"}" "$1${share#"$root"}" &&
        cp -L "$bin"/* "$1${bin#"$root"}/" &&
        cp -rs "$(realpath "$lib")/." "$1${lib#"$root"}/" &&
        cp -rs "$(realpath "$share")/." "$1${share#"$root"}/" &&
        rm -f "$1${lib#"$root"}/ruvector.so" "$1${share#"$root"}"/extension/ruvector*
}

private_pg_config() { # NAME
    echo "$work/$1${bin#"$root"}/pg_config"
}
