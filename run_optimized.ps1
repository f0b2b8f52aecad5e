<#
.SYNOPSIS
    Runs the gateway in a virtual environment of its own.

.DESCRIPTION
    On first use, and whenever requirements.txt has changed, makes .venv beside this script and installs the pinned
    dependencies. Then runs `python run.py` there and passes its exit code on.

.PARAMETER Environment
    The profile: development (loopback, simulator unless keys are given) or production (tokens required).

.PARAMETER Workers
    How many processes serve. Left out, the settings decide. On Windows it is one, whatever is asked for: sockets cannot
    be passed to workers there, and the log says so.

.EXAMPLE
    .\run_optimized.ps1 -Environment development

.EXAMPLE
    .\run_optimized.ps1 -Environment production -Workers 1
#>
[CmdletBinding()]
param(
    [ValidateSet('development', 'production')]
    [string]$Environment = 'development',

    [ValidateRange(1, 256)]
    [int]$Workers
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$requirements = Join-Path $PSScriptRoot 'requirements.txt'
$venv = Join-Path $PSScriptRoot '.venv'
$stamp = Join-Path $venv 'requirements.sha256'
# $IsWindows is unknown to Windows PowerShell 5, which runs on nothing else.
$onWindows = $PSVersionTable.PSVersion.Major -lt 6 -or $IsWindows
if ($onWindows) {
    $python = Join-Path $venv 'Scripts\python.exe'
    $systemPython = 'python'
}
else {
    $python = Join-Path $venv 'bin/python'
    $systemPython = 'python3'
}

function Invoke-Checked {
    param([string]$Command, [string[]]$Arguments)
    & $Command @Arguments
    if ($LASTEXITCODE -ne 0) {
        throw "'$Command $Arguments' failed with exit code $LASTEXITCODE."
    }
}

if (-not (Test-Path $python)) {
    Invoke-Checked $systemPython @('-c', 'import sys; sys.exit(sys.version_info[:2] < (3, 11) and ''Python 3.11 or newer is needed'')')
    Invoke-Checked $systemPython @('-m', 'venv', $venv)
}

$wanted = (Get-FileHash -Algorithm SHA256 $requirements).Hash
if (-not (Test-Path $stamp) -or (Get-Content $stamp -TotalCount 1) -ne $wanted) {
    Invoke-Checked $python @('-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', '--require-hashes', '-r', $requirements)
    Set-Content -Path $stamp -Value $wanted
}

$arguments = @((Join-Path $PSScriptRoot 'run.py'), '--profile', $Environment)
if ($PSBoundParameters.ContainsKey('Workers')) {
    $arguments += @('--workers', $Workers)
}
& $python @arguments
exit $LASTEXITCODE
