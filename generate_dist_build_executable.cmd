@echo off
rem Builds src\dist\dist_build.exe, the program that is put before the compiler. Needs a Python with
rem requirements.txt; takes the one on PATH.
python "%~dp0tools\windows\make_executable.py" %*
exit /b %ERRORLEVEL%
