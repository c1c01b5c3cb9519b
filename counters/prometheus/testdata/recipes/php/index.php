<?php // see counters/prometheus/recipes_test.go
if (strtok($_SERVER['REQUEST_URI'], '?') === '/hold') {
    file_get_contents(getenv('BACKEND') . '/hold?' . $_SERVER['QUERY_STRING']);
}
echo 'ok';
