<?php // Answers /delay/MS after so many milliseconds.
if (preg_match('#^/delay/(\d+)#', $_SERVER['REQUEST_URI'], $m)) {
  usleep((int)$m[1] * 1000);
}
header('Content-Length: 4');
echo 'done';
