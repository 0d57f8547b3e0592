#!/bin/sh
# The committed files of the dashboard are byte for byte those that its source gives.
set -eu

node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null || {
    echo "dashboard-check: skipped, because it needs Node 20.19 or newer"
    exit 0
}
make dashboard/node_modules/.package-lock.json || {
    echo "dashboard-check: skipped, because npm could not install the packages"
    exit 0
}
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
cp -R src/perdure/dashboard "$built/committed"
make dashboard
mv src/perdure/dashboard "$built/rebuilt"
cp -R "$built/committed" src/perdure/dashboard
diff -r "$built/committed" "$built/rebuilt" || {
    echo "dashboard-check: src/perdure/dashboard is not what its source gives; run \`make dashboard\` and commit the files" >&2
    exit 1
}
echo "dashboard-check: the committed files are those of the source"
